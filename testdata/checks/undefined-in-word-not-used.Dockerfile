FROM scratch
ENV A=1
ENV B=${A:-$nowhere} C=${A+$there} D=${nowhere+$else}
