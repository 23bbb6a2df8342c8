"""The catalog: one LMDB environment, its rows, its transactions, its journal."""
