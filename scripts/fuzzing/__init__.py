"""Files that were damaged or forged, given to the program: it loads them, or says in a sentence why it doesn't."""
