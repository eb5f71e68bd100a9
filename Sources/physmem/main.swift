print("physmem")
