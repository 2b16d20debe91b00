#include "supervisor/orphans.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/log.h"

void orphans_adopt(void)
{
	if (getpid() != 1 && prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
		log_warn("cannot adopt orphans: %m");
}

/* The parent of a process; 0 when it is gone. */
static pid_t parent_of(const char *pid)
{
	char path[64], text[512];
	snprintf(path, sizeof path, "/proc/%s/stat", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	ssize_t n = read(fd, text, sizeof text - 1);
	close(fd);
	if (n <= 0)
		return 0;
	text[n] = '\0';
	/* "pid (any name, with parentheses) state parent …" */
	const char *end = strrchr(text, ')');
	int parent = 0;
	if (!end || sscanf(end + 1, " %*c %d", &parent) != 1)
		return 0;
	return parent;
}

unsigned orphans_signal(int number)
{
	unsigned found = 0;
	pid_t self = getpid();
	DIR *proc = opendir("/proc");
	if (!proc)
		return 0;
	for (struct dirent *entry; (entry = readdir(proc));) {
		if (!isdigit((unsigned char)entry->d_name[0]) || parent_of(entry->d_name) != self)
			continue;
		if (kill((pid_t)strtol(entry->d_name, NULL, 10), number) == 0)
			found++;
	}
	closedir(proc);
	return found;
}
