FROM scratch
ARG a=1 b="2 3" c='$a' d=$a e
ENV f=$b g=$c h=$d i=$e
