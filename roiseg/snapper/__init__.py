"""Snapper: from a rough box around any object to the object's own edges, and how sure each of them is (spec 21)."""
