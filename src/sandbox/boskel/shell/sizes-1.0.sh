sizes() { du -sh .; }
