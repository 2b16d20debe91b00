/*
 * Feeds every file below tests/fuzz/corpus/<name> to one fuzzer and says so in TAP: what a fuzzer
 * once found stays found, without libFuzzer. The program's own name, "<name>_replay.t", picks the
 * corpus. Run from the top of the source tree.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned n_replayed;

static void give_up(const char *what, const char *path)
{
	printf("not ok %u - %s: %s\n1..%u\n", n_replayed + 1, path, what, n_replayed + 1);
	exit(1);
}

static void replay_file(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	if (fd < 0 || fstat(fd, &st))
		give_up(strerror(errno), path);
	size_t size = (size_t)st.st_size, len = 0;
	/* The exact size, never one byte more: an overrun must meet the sanitizer's red zone. */
	uint8_t *data = malloc(size ? size : 1);
	if (!data)
		give_up("no memory", path);
	while (len < size) {
		ssize_t n = read(fd, data + len, size - len);
		if (n <= 0)
			give_up("cannot be read", path);
		len += (size_t)n;
	}
	close(fd);
	/* Said before the call: a crash then ends the output with the name of the file. */
	printf("# %s, %zu bytes\n", path, size);
	fflush(stdout);
	LLVMFuzzerTestOneInput(data, size);
	printf("ok %u - %s\n", ++n_replayed, path);
	free(data);
}

static void replay_below(const char *dir)
{
	struct dirent **entries;
	int n = scandir(dir, &entries, NULL, alphasort);
	if (n < 0)
		give_up(strerror(errno), dir);
	for (int i = 0; i < n; i++) {
		const char *name = entries[i]->d_name;
		char path[4096];
		if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0) {
			int len = snprintf(path, sizeof path, "%s/%s", dir, name);
			if (len < 0 || (size_t)len >= sizeof path)
				give_up("the path is too long", dir);
			struct stat st;
			if (stat(path, &st))
				give_up(strerror(errno), path);
			if (S_ISDIR(st.st_mode))
				replay_below(path);
			else
				replay_file(path);
		}
		free(entries[i]);
	}
	free(entries);
}

int main(int argc, char **argv)
{
	static const char suffix[] = "_replay.t";
	const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
	const char *name = slash ? slash + 1 : argc > 0 ? argv[0] : "";
	size_t len = strlen(name), suffix_len = sizeof suffix - 1;
	if (len <= suffix_len || strcmp(name + len - suffix_len, suffix) != 0)
		give_up("the program must be named <fuzzer>_replay.t", name);
	char dir[512];
	snprintf(dir, sizeof dir, "tests/fuzz/corpus/%.*s", (int)(len - suffix_len), name);
	replay_below(dir);
	if (n_replayed == 0)
		give_up("the corpus is empty", dir);
	printf("1..%u\n", n_replayed);
	return 0;
}
