/*
 * bare_spawn PROGRAM FIFO COUNT: starts PROGRAM FIFO 1 to PROGRAM FIFO COUNT as soon as it can,
 * then waits. The least that a supervisor's start can cost: what is above it is the supervisor's
 * own.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Alone in its function, so that nothing kept in registers is lost between the two returns. */
static int run(char **argv) __attribute__((noinline));

static int run(char **argv)
{
	pid_t pid = vfork();
	if (pid == 0) {
		execv(argv[0], argv);
		_exit(127);
	}
	return pid > 0 ? 0 : -1;
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	long count = strtol(argv[3], NULL, 10);
	for (long i = 1; i <= count; i++) {
		char number[24];
		snprintf(number, sizeof(number), "%ld", i);
		if (run((char *[]){argv[1], argv[2], number, NULL}) < 0)
			perror("vfork");
	}
	pause();
	return 0;
}
