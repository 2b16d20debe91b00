#include "common/rpc_descriptor.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* Room for more than the one that is wanted: what does not fit is only flagged, what fits is seen.
 */
#define MAX_DESCRIPTORS 4

union control {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(MAX_DESCRIPTORS * sizeof(int))];
};

int rpc_descriptor_send(int socket, struct span head, struct span rest, int fd)
{
	struct iovec iov[] = {{(void *)head.data, head.len}, {(void *)rest.data, rest.len}};
	union control control = {.bytes = {0}};
	struct msghdr message = {.msg_iov = iov,
		.msg_iovlen = 2,
		.msg_control = control.bytes,
		.msg_controllen = CMSG_SPACE(sizeof fd)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&message);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof fd);
	memcpy(CMSG_DATA(c), &fd, sizeof fd);
	ssize_t n = sendmsg(socket, &message, MSG_NOSIGNAL);
	return n >= 0 && (size_t)n == head.len + rest.len ? 0 : -1;
}

/* Close, or keep the first; how many there were. */
static size_t take(struct cmsghdr *c, int *fd)
{
	size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	for (size_t i = 0; i < n; i++) {
		int one;
		memcpy(&one, CMSG_DATA(c) + i * sizeof one, sizeof one);
		if (*fd < 0)
			*fd = one;
		else
			close(one);
	}
	return n;
}

ssize_t rpc_descriptor_recv(int socket, void *data, size_t len_bytes, int *fd)
{
	struct iovec iov = {data, len_bytes};
	union control control;
	struct msghdr message = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof control.bytes};
	ssize_t n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
	if (n < 0)
		return -1;
	size_t had = *fd >= 0, came = 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c))
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
			came += take(c, fd);
	return had + came > 1 || (message.msg_flags & MSG_CTRUNC) ? RPC_DESCRIPTOR_BAD : n;
}
