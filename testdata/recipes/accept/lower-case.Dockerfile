from alpine
run echo hello
cmd echo bye
