From scratch
Env a=b
