#ifndef COMMON_STARTUP_PAGES_H
#define COMMON_STARTUP_PAGES_H

/*
 * Memory that only starting needed is given back.
 *
 * To load 36 libraries, bind their symbols and run their constructors touches much that running
 * never needs again: of the 11.5 MB of a merger that has just started 9.8 are pages of libraries,
 * most of them of TLS, Kerberos and LDAP, which come with libcurl. Whatever of that is the file's
 * own, unchanged, is let go of here: it stays in the page cache, and comes back by a fault without
 * input or output when it is touched again.
 *
 * Why nothing is lost: madvise(2) MADV_DONTNEED makes a page of a private mapping what the file
 * says again, so only pages that the kernel calls the file's own (not copied by a write; bit 61 of
 * /proc/self/pagemap) are let go of, and only of segments that cannot be written. Data, and what
 * the loader writes and then protects (GNU_RELRO), lie in segments that can; a page of code that
 * somebody changed all the same (a debugger's breakpoint, a probe, a text relocation) is a copy,
 * and stays.
 *
 * Once, when the daemon is about to serve. Without /proc, or where a page is locked, nothing
 * happens. What it is worth, and why it is here: an idle pod has 9.9 MB PSS instead of 15.2, and
 * exportermerger keeps its 16 MB (docs/DESIGN.md).
 */
void startup_pages_drop(void);

#endif
