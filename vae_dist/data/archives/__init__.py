"""Archives of pictures, read in place: nothing in them is unpacked to the disk."""
