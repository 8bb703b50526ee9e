FROM	alpine	AS	x
RUN	echo	hi
	CMD	echo
