/*
 * bare_spawn COMMAND...: runs each command with /bin/sh -c, as soon as it can, then waits. The
 * least that a supervisor's start can cost: what is above it is the supervisor's own.
 */
#include <stdio.h>
#include <unistd.h>

/* Alone in its function, so that nothing kept in registers is lost between the two returns. */
static int run(char *command) __attribute__((noinline));

static int run(char *command)
{
	char sh[] = "sh", option[] = "-c", *argv[] = {sh, option, command, NULL};
	pid_t pid = vfork();
	if (pid == 0) {
		execv("/bin/sh", argv);
		_exit(127);
	}
	return pid > 0 ? 0 : -1;
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (run(argv[i]) < 0)
			perror("vfork");
	pause();
	return 0;
}
