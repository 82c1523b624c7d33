"""Tools that turn the chapters into a book, into notebooks and into a ledger of claims."""
