FROM scratch
ARG PASSWORD API_KEY PUBLIC_KEY
ENV auth=1 my_pword=2 KEYS=3 x_credential_y=4 tokenization=5 a-token=6 secretkey=7
ARG GITHUB_TOKEN=x
ENV SECRET value
LABEL password=x
