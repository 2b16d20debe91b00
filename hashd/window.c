#include "hashd/window.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "common/loop.h"
#include "common/messages.h"

#define WINDOW_MAGIC 0x3142d0a7u
/* Leases go back in one notification when so many are there, or after so long. */
#define RETURN_COUNT 128
#define RETURN_MS    2
#define SPARE_LOANS  1024

struct window_counters window_counters;

struct loan {
	struct window *window;
	struct loan *next; /* in spare */
	uint64_t lease;
	size_t len_bytes;
};

struct window {
	uint32_t magic;
	struct rpc_client *client; /* NULL: detached */
	int socket;                /* then, until the last loan is over */
	const char *base;
	uint64_t size_bytes;
	size_t loans;
	struct loan *spare;
	size_t n_spare;
	struct timer *timer;
	size_t n_returned;
	uint64_t returned[RETURN_COUNT];
};

static void send_returned(void *arg)
{
	struct window *window = arg;
	struct msg_release release = {.leases = {window->returned, window->n_returned}};

	if (window->client && window->n_returned)
		msg_release_notify(window->client, &release);
	window->n_returned = 0;
}

static bool is_sound(int fd, uint64_t arena_bytes)
{
	const int sealed = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;

	return seals >= 0 && (seals & sealed) == sealed && fstat(fd, &st) == 0 && arena_bytes > 0 &&
	       arena_bytes <= SIZE_MAX && (uint64_t)st.st_size == arena_bytes;
}

struct window *window_open(
	struct loop *loop, struct rpc_client *client, uint64_t arena_bytes, int fd)
{
	struct window *window = NULL;

	if (!is_sound(fd, arena_bytes)) {
		log_error("%s: its arena is not what it says", rpc_client_path(client));
		goto out;
	}
	window = calloc(1, sizeof(*window));
	if (!window)
		goto out;
	window->timer = timer_new(loop, send_returned, window);
	void *base = window->timer ? mmap(NULL, (size_t)arena_bytes, PROT_READ, MAP_SHARED, fd, 0)
				   : MAP_FAILED;

	if (base == MAP_FAILED) {
		log_error("%s: cannot map its arena: %s", rpc_client_path(client), strerror(errno));
		timer_free(&window->timer);
		free(window);
		window = NULL;
		goto out;
	}
	window->magic = WINDOW_MAGIC;
	window->client = client;
	window->socket = -1;
	window->base = base;
	window->size_bytes = arena_bytes;
	window_counters.mapped_bytes += arena_bytes;
out:
	close(fd);
	return window;
}

static void window_free(struct window *window)
{
	struct loan *loan;

	while ((loan = window->spare)) {
		window->spare = loan->next;
		free(loan);
	}
	munmap((void *)window->base, (size_t)window->size_bytes);
	window_counters.mapped_bytes -= window->size_bytes;
	timer_free(&window->timer);
	/* Last: from here on gatewayd may use that memory for something else. */
	close(window->socket);
	window->magic = 0;
	free(window);
}

void window_detach(struct window **window_, int socket)
{
	struct window *window = *window_;

	*window_ = NULL;
	if (!window) {
		close(socket);
		return;
	}
	timer_disarm(window->timer);
	window->client = NULL;
	window->socket = socket;
	if (window->loans == 0)
		window_free(window);
}

void window_return(struct window *window, uint64_t lease)
{
	if (!window->client)
		return;
	window->returned[window->n_returned++] = lease;
	if (window->n_returned == RETURN_COUNT)
		send_returned(window);
	else if (window->n_returned == 1)
		timer_arm(window->timer, RETURN_MS);
}

/* ---- Loans ---- */

static void release(void *owner)
{
	struct loan *loan = owner;
	struct window *window = loan->window;

	BUG_ON(window->magic != WINDOW_MAGIC);
	window_counters.lent--;
	window_counters.lent_bytes -= loan->len_bytes;
	window->loans--;
	window_return(window, loan->lease);
	if (window->n_spare < SPARE_LOANS) {
		loan->next = window->spare;
		window->spare = loan;
		window->n_spare++;
	} else {
		free(loan);
	}
	if (!window->client && window->loans == 0)
		window_free(window);
}

bool window_lend(struct window *window, uint64_t lease, uint64_t offset, uint64_t length_bytes,
	struct slice *slice)
{
	struct loan *loan = window->spare;

	if (offset > window->size_bytes || length_bytes > window->size_bytes - offset) {
		window_counters.refused++;
		window_return(window, lease);
		return false;
	}
	if (loan) {
		window->spare = loan->next;
		window->n_spare--;
	} else if (!(loan = malloc(sizeof(*loan)))) {
		window_return(window, lease);
		return false;
	}
	*loan = (struct loan){.window = window, .lease = lease, .len_bytes = (size_t)length_bytes};
	window->loans++;
	window_counters.lent++;
	window_counters.lent_bytes += length_bytes;
	*slice = (struct slice){window->base + offset, (size_t)length_bytes, release, loan};
	return true;
}
