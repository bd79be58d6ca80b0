greet() { echo "boskel $1"; }
