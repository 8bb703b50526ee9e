FROM scratch
ENV A="$a1" B='$a2' C=\$a3 D="\$a4"
LABEL a="b $a5"
