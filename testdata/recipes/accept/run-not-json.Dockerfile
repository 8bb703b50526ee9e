FROM alpine
RUN ['sh', '-c', 'true']
RUN [ -f /etc/passwd ] && echo yes
RUN ["c:\x"]
RUN ["a",]
CMD [ "a" "b" ]
