/* Pages of the program and its libraries that nobody changed are let go of; what was changed stays.
 */
#include "common/startup_pages.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

/* Alone on their pages, in the part of the file that is mapped for reading only. */
#define PAGE 4096
static const char changed[3 * PAGE] = {[PAGE] = 1, [2 * PAGE] = 1};

/* The compiler believes that it knows what is there. */
static int byte_at(size_t i)
{
	return *(volatile const char *)&changed[i];
}

static long resident_file_kb(void)
{
	char line[128];
	long kb = -1;
	FILE *f = fopen("/proc/self/status", "r");
	assert_non_null(f);
	while (fgets(line, sizeof line, f))
		if (sscanf(line, "RssFile: %ld", &kb) == 1)
			break;
	fclose(f);
	return kb;
}

static void test_changed_pages_stay(void **state)
{
	(void)state;
	char *page = (char *)(((uintptr_t)&changed[PAGE]) & ~(uintptr_t)(PAGE - 1));
	assert_int_equal(mprotect(page, (size_t)2 * PAGE, PROT_READ | PROT_WRITE), 0);
	*(volatile char *)(uintptr_t)&changed[PAGE] = 7;
	assert_int_equal(mprotect(page, (size_t)2 * PAGE, PROT_READ), 0);
	startup_pages_drop();
	assert_int_equal(byte_at(PAGE), 7);
	assert_int_equal(byte_at((size_t)2 * PAGE), 1);
}

static void test_unchanged_pages_go(void **state)
{
	(void)state;
	long before = resident_file_kb();
	startup_pages_drop();
	long after = resident_file_kb();
	assert_true(before > 0);
	assert_true(after < before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_changed_pages_stay),
		cmocka_unit_test(test_unchanged_pages_go),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
