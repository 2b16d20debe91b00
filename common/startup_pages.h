#ifndef COMMON_STARTUP_PAGES_H
#define COMMON_STARTUP_PAGES_H

/*
 * To load 36 libraries, bind their symbols and run their constructors touches much that running
 * never needs again: of the 11.5 MB of a merger that has just started 9.8 are pages of libraries,
 * most of them of TLS, Kerberos and LDAP, which come with libcurl. Whatever of that is the file's
 * own, unchanged, is let go of here: it stays in the page cache, and comes back by a fault without
 * input or output when it is touched again.
 *
 * Once, when the daemon is about to serve. Pages of our own (a breakpoint, a probe, a relocation)
 * stay. Without /proc nothing happens.
 */
void startup_pages_drop(void);

#endif
