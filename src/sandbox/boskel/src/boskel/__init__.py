import sys
from importlib.metadata import version

from tabulate import tabulate


def main():
    if sys.argv[1:] == ["--version"]:
        print("boskel", version("boskel"))
    else:
        print(tabulate([["boskel", version("boskel")], ["python", sys.version.split()[0]]]))
