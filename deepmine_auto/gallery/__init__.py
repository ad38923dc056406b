"""What attention variants look like: their weights as pictures, and a page of all of them."""
