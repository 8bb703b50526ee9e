FROM alpine
RUN ["sh", "-c", "echo \"hi\" \u0041"]
RUN ["true"]
RUN [ "echo" , "a" ]
