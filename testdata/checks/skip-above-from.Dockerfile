ARG X
# check=skip=UndefinedArgInFrom,InvalidDefaultArgInFrom
FROM ${Y:-scratch}
