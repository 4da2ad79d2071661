"""How fast bcdb is, and how that is measured. Nothing in the product imports from here."""
