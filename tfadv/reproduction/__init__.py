"""Published tables, measured again.

`tables` reads a table's file, `models` trains what it needs, `outcome` sets published
and measured numbers side by side, `reproduce` does it all.
"""
