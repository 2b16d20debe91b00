#include "common/startup_pages.h"

#include <fcntl.h>
#include <link.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Of an entry of /proc/self/pagemap, proc(5). */
#define PRESENT   (UINT64_C(1) << 63)
#define OF_A_FILE (UINT64_C(1) << 61) /* and not copied by a write */

#define ENTRIES   512 /* looked at together */

struct walk {
	int pagemap;
	size_t page_bytes;
};

/* Of n pages from start on. */
static void drop_unchanged(
	const struct walk *walk, uintptr_t start, const uint64_t *entries, size_t n)
{
	const uint64_t wanted = PRESENT | OF_A_FILE;
	for (size_t i = 0, run; i < n; i += run + 1) {
		for (run = 0; i + run < n && (entries[i + run] & wanted) == wanted;)
			run++;
		if (run)
			madvise((void *)(start + i * walk->page_bytes), run * walk->page_bytes,
				MADV_DONTNEED);
	}
}

static void drop_segment(const struct walk *walk, uintptr_t start, uintptr_t end)
{
	uint64_t entries[ENTRIES];
	while (start < end) {
		size_t n = (end - start) / walk->page_bytes;
		off_t at = (off_t)(start / walk->page_bytes * sizeof *entries);
		ssize_t got = pread(
			walk->pagemap, entries, (n < ENTRIES ? n : ENTRIES) * sizeof *entries, at);
		if (got < (ssize_t)sizeof *entries)
			return;
		n = (size_t)got / sizeof *entries;
		drop_unchanged(walk, start, entries, n);
		start += n * walk->page_bytes;
	}
}

static int drop_object(struct dl_phdr_info *object, size_t size, void *arg)
{
	const struct walk *walk = arg;
	(void)size;
	if (strncmp(object->dlpi_name, "linux-", 6) == 0) /* the kernel's own: no file */
		return 0;
	for (int i = 0; i < object->dlpi_phnum; i++) {
		const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
		/* What can be written another thread may be writing now. */
		if (segment->p_type != PT_LOAD || segment->p_flags & PF_W)
			continue;
		uintptr_t start = object->dlpi_addr + segment->p_vaddr;
		uintptr_t end = start + segment->p_filesz;
		drop_segment(walk, start & ~(walk->page_bytes - 1),
			(end + walk->page_bytes - 1) & ~(walk->page_bytes - 1));
	}
	return 0;
}

void startup_pages_drop(void)
{
	struct walk walk = {
		open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC), (size_t)sysconf(_SC_PAGESIZE)};
	if (walk.pagemap < 0)
		return;
	dl_iterate_phdr(drop_object, &walk);
	close(walk.pagemap);
}
