# check = skip = JSONArgsRecommended , SecretsUsedInArgOrEnv ; error = false
FROM scratch
CMD one
ENV TOKEN=1
