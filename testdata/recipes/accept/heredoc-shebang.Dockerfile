FROM python:3
RUN <<EOF
#!/usr/bin/env python
print('FROM nothing')
EOF
CMD python
