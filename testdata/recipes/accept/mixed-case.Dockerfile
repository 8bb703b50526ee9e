From alpine
RuN echo hello
eNv a=b
