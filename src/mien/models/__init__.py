"""Networks in torch: backbone and heads, the graph as exported, and weights with their spec."""
