#ifndef SUPERVISOR_CTL_PROGRAMS_H
#define SUPERVISOR_CTL_PROGRAMS_H

/*
 * The commands that the supervisor carries out itself. names are the words after the command, to be
 * changed by nobody. Each prints what came of it and returns podctl's exit code.
 */
#include "supervisor/config/values.h"
#include "supervisor/ctl/options.h"
#include "supervisor/ctl/session.h"

/* How long `status --wait` waits unless told. */
#define PROGRAMS_WAIT_MS 60000

enum ctl_exit programs_status(
	const struct ctl_options *options, struct session *session, char **names, int n_names);
enum ctl_exit programs_start(
	const struct ctl_options *options, struct session *session, char **names, int n_names);
enum ctl_exit programs_stop(
	const struct ctl_options *options, struct session *session, char **names, int n_names);
enum ctl_exit programs_restart(
	const struct ctl_options *options, struct session *session, char **names, int n_names);
/* names[0] is the signal. */
enum ctl_exit programs_signal(
	const struct ctl_options *options, struct session *session, char **names, int n_names);
enum ctl_exit programs_reload(
	const struct ctl_options *options, struct session *session, char **names, int n_names);
enum ctl_exit programs_shutdown(
	const struct ctl_options *options, struct session *session, char **names, int n_names);

/*
 * The labels of all processes that these names mean (none: all). CTL_UNKNOWN after naming those
 * that are none. strings_free() in any case.
 */
enum ctl_exit programs_find(
	struct session *session, char **names, int n_names, struct strings *labels);

#endif
