"""What a job will cost, told before it runs: counted work, times what each operation costs on this machine."""
