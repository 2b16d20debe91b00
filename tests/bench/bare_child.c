/*
 * bare_child FIFO NUMBER [COMMAND...]: writes "NUMBER PID SECONDS" into the FIFO, SECONDS of
 * CLOCK_MONOTONIC, then becomes the command or waits to be killed. Small and static, so that the
 * kernel has next to nothing to do for it: what a benchmark of supervisors sees is the supervisor,
 * not the loading of a shell or the slowness of the script that measures.
 */
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	char line[96];
	int length = snprintf(line, sizeof(line), "%.20s %ld %lld.%09ld\n", argv[2], (long)getpid(),
		(long long)now.tv_sec, now.tv_nsec);
	int fifo = open(argv[1], O_WRONLY | O_CLOEXEC);
	if (fifo < 0 || write(fifo, line, (size_t)length) != length)
		return 1;
	close(fifo);
	if (argc > 3) {
		execvp(argv[3], argv + 3);
		perror(argv[3]);
		return 127;
	}
	pause();
	return 0;
}
