FROM scratch AS a
ONBUILD COPY <<EOF /a
$x
EOF
FROM a
