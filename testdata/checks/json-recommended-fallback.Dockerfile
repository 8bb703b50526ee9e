FROM scratch
CMD ['one']
ENTRYPOINT ["one", two]
