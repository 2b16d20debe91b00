/*
 * children_tool ROUNDS N: leaves ROUNDS times N processes behind, which end at once. Each round is
 * a process of its own that ends with them unreaped, so that whoever adopts orphans gets them all.
 * They are made by vfork(): where page tables are dear to copy, fork() would be all that is
 * measured.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* Alone in its function, so that nothing kept in registers is lost between the two returns. */
static bool make_child(int code) __attribute__((noinline));

static bool make_child(int code)
{
	pid_t pid = vfork();
	if (pid == 0)
		_exit(code);
	return pid > 0;
}

static void leave_behind(long n)
{
	for (long i = 0; i < n; i++)
		if (!make_child((int)(i % 100)))
			_exit(1);
	_exit(0);
}

int main(int argc, char **argv)
{
	long rounds = argc > 2 ? strtol(argv[1], NULL, 10) : 0;
	long n = argc > 2 ? strtol(argv[2], NULL, 10) : 0;
	long failed = 0;
	for (long i = 0; i < rounds; i++) {
		int status;
		pid_t pid = fork();
		if (pid == 0)
			leave_behind(n);
		if (pid < 0 || waitpid(pid, &status, 0) < 0 || status != 0)
			failed++;
	}
	printf("%ld rounds failed\n", failed);
	fflush(stdout);
	if (failed)
		return 1;
	pause();
	return 0;
}
