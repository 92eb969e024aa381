"""How units travel through processes and machines that may die."""
