FROM scratch AS a
# check=skip=JSONArgsRecommended,UndefinedVar
ENTRYPOINT one
# check=skip=UndefinedVar, SecretsUsedInArgOrEnv
ENV TOKEN=$nowhere
