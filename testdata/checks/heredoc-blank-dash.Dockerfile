FROM scratch
RUN cat <<- EOF
x
EOF
