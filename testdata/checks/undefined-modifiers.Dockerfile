FROM scratch
ENV A=${a1:-x} B=${a2-x} C=${a3:+x} D=${a4+x} E=${a5#x} F=${a6%%x} G=${a7/x/y}
ENV H=${h1:-$h2} I=${PATH:+$i1}
