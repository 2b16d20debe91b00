#include "supervisor/notify_socket.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/event.h>

#include "common/loop.h"

#define MESSAGE_MAX_BYTES 4096
#define MESSAGES_A_TURN   64

struct notify_socket {
	struct sockaddr_un address;
	int fd;
	struct event *readable;
	void (*on_ready)(pid_t sender, void *arg);
	void *arg;
};

static bool says_ready(const char *text, size_t len)
{
	static const char ready[] = "READY=1";
	while (len) {
		const char *newline = memchr(text, '\n', len);
		size_t n = newline ? (size_t)(newline - text) : len;
		if (n == sizeof ready - 1 && memcmp(text, ready, n) == 0)
			return true;
		n += newline ? 1 : 0;
		text += n;
		len -= n;
	}
	return false;
}

/* Descriptors that came along are closed: nothing here wants any. */
static pid_t read_sender(struct msghdr *message)
{
	pid_t sender = 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		if (c->cmsg_level != SOL_SOCKET)
			continue;
		if (c->cmsg_type == SCM_CREDENTIALS) {
			struct ucred who;
			memcpy(&who, CMSG_DATA(c), sizeof who);
			sender = who.pid;
		} else if (c->cmsg_type == SCM_RIGHTS) {
			size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			for (size_t i = 0; i < n; i++) {
				int fd;
				memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
				close(fd);
			}
		}
	}
	return sender;
}

static bool read_message(struct notify_socket *notify)
{
	char text[MESSAGE_MAX_BYTES];
	char control[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(16 * sizeof(int))]
		__attribute__((aligned(_Alignof(struct cmsghdr))));
	struct iovec part = {text, sizeof text};
	struct msghdr message = {.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof control};
	ssize_t n = recvmsg(notify->fd, &message, MSG_CMSG_CLOEXEC);
	if (n < 0)
		return errno == EINTR;
	pid_t sender = read_sender(&message);
	if (sender > 0 && says_ready(text, (size_t)n))
		notify->on_ready(sender, notify->arg);
	return true;
}

static void readable_due(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	for (int i = 0; i < MESSAGES_A_TURN && read_message(arg); i++)
		;
}

struct notify_socket *notify_socket_new(
	struct loop *loop, const char *path, void (*on_ready)(pid_t sender, void *arg), void *arg)
{
	struct notify_socket *notify = calloc(1, sizeof *notify);
	int on = 1;
	if (!notify)
		return NULL;
	notify->on_ready = on_ready;
	notify->arg = arg;
	notify->address.sun_family = AF_UNIX;
	notify->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (notify->fd < 0)
		goto fail;
	if (strlen(path) >= sizeof notify->address.sun_path) {
		errno = ENAMETOOLONG;
		goto fail;
	}
	memcpy(notify->address.sun_path, path, strlen(path));
	unlink(path);
	mode_t before = umask(0117);
	int bound = bind(notify->fd, (struct sockaddr *)&notify->address, sizeof notify->address);
	umask(before);
	if (bound < 0 || setsockopt(notify->fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) < 0)
		goto fail;
	notify->readable = event_new(
		loop_base(loop), notify->fd, EV_READ | EV_PERSIST, readable_due, notify);
	if (!notify->readable || event_add(notify->readable, NULL) < 0)
		goto fail;
	return notify;

fail:;
	int saved = errno;
	if (notify->fd >= 0)
		close(notify->fd);
	if (notify->readable)
		event_free(notify->readable);
	free(notify);
	errno = saved;
	return NULL;
}

const char *notify_socket_path(const struct notify_socket *notify)
{
	return notify->address.sun_path;
}

void notify_socket_free(struct notify_socket **notify)
{
	struct notify_socket *n = *notify;
	if (!n)
		return;
	*notify = NULL;
	event_free(n->readable);
	close(n->fd);
	unlink(n->address.sun_path);
	free(n);
}
