"""`./run simulate`: how an installation behaves as its work grows: formulas, measured constants, the real cores."""
