/* Sections become processes: names, numbers, groups, order, dependencies, defaults, mistakes. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "supervisor/config/pod_config.h"

static char reported[8192];
static struct pod_config pod;
static unsigned errors, warnings;

static void note(void *arg, bool is_error, const char *file, unsigned line, const char *text)
{
	(void)arg;
	size_t len = strlen(reported);
	snprintf(reported + len, sizeof reported - len, "%c %s:%u %s\n", is_error ? 'E' : 'W',
		file ? file : "-", line, text);
}

static const char *env_of(const char *variable, void *arg)
{
	(void)arg;
	return strcmp(variable, "RUN_DIR") == 0 ? "/run/x" : NULL;
}

static int build(const char *text)
{
	struct report report = {.line = note};
	struct ini doc = {0};
	reported[0] = '\0';
	pod_config_free(&pod);
	int result = ini_parse(&doc, "pod.conf", text, strlen(text), &report);
	if (result == 0)
		result = pod_config_build(&pod, &doc, "/etc/pod", env_of, NULL, &report);
	errors = report.errors;
	warnings = report.warnings;
	/* Nothing of the pod points into the document. */
	ini_free(&doc);
	return result;
}

static void expect_error(const char *text, const char *sentence)
{
	assert_int_equal(build(text), -1);
	assert_int_equal(pod.n_processes, 0);
	if (!strstr(reported, sentence))
		fail_msg("\"%s\" is not in:\n%s", sentence, reported);
}

static void expect_warning(const char *text, const char *sentence)
{
	assert_int_equal(build(text), 0);
	assert_int_equal(warnings, 1);
	if (!strstr(reported, sentence))
		fail_msg("\"%s\" is not in:\n%s", sentence, reported);
}

static int tear_down(void **state)
{
	(void)state;
	pod_config_free(&pod);
	return 0;
}

static void test_defaults_are_those_of_supervisord(void **state)
{
	(void)state;
	assert_int_equal(build("[program:web]\ncommand=/bin/web --port 80\n"), 0);
	assert_int_equal(pod.n_processes, 1);
	const struct process_config *p = &pod.processes[0];
	assert_string_equal(p->label, "web");
	assert_string_equal(p->name, "web");
	assert_string_equal(p->group, "web");
	assert_int_equal(p->command.n, 3);
	assert_int_equal(p->priority, 999);
	assert_true(p->autostart);
	assert_int_equal(p->autorestart, AUTORESTART_UNEXPECTED);
	assert_int_equal(p->exit_codes[0], 1);
	assert_int_equal(p->start_ms, 1000);
	assert_int_equal(p->start_retries, 3);
	assert_int_equal(p->stop_signal, SIGTERM);
	assert_int_equal(p->stop_wait_ms, 10000);
	assert_false(p->stop_as_group);
	assert_int_equal(p->umask, -1);
	assert_int_equal(p->out.kind, LOG_KIND_CONSOLE);
	assert_int_equal(p->out.max_bytes, 50 << 20);
	assert_int_equal(p->out.backups, 10);
	assert_int_equal(p->ready, READY_NONE);
	assert_string_equal(reported, "");
}

static void test_every_key(void **state)
{
	(void)state;
	assert_int_equal(build("[program:web]\ncommand=%(here)s/web\npriority=5\nautostart=false\n"
			       "autorestart=true\nexitcodes=0,2\nstartsecs=2\nstartretries=7\n"
			       "restart_delay=100ms\nrestart_delay_max=5\nstopsignal=INT\n"
			       "stopwaitsecs=3\nstopasgroup=true\nkillasgroup=true\nuser=root\n"
			       "umask=027\ndirectory=/tmp\nenvironment=A=\"%(program_name)s\"\n"
			       "redirect_stderr=true\nstdout_logfile=/dev/stdout\n"
			       "stdout_logfile_maxbytes=1KB\nstdout_logfile_backups=2\n"
			       "stderr_logfile=NONE\nsockets=http=127.0.0.1:80, rpc=/run/web.sock\n"
			       "ready=rpc\nready_timeout=9\n"),
		0);
	const struct process_config *p = &pod.processes[0];
	assert_string_equal(p->command.items[0], "/etc/pod/web");
	assert_int_equal(p->priority, 5);
	assert_false(p->autostart);
	assert_int_equal(p->autorestart, AUTORESTART_ALWAYS);
	assert_int_equal(p->exit_codes[0], 5);
	assert_int_equal(p->start_ms, 2000);
	assert_int_equal(p->start_retries, 7);
	assert_int_equal(p->restart_delay_ms, 100);
	assert_int_equal(p->restart_delay_max_ms, 5000);
	assert_int_equal(p->stop_signal, SIGINT);
	assert_int_equal(p->stop_wait_ms, 3000);
	assert_true(p->stop_as_group && p->kill_as_group);
	assert_true(p->has_user);
	assert_int_equal(p->uid, 0);
	assert_int_equal(p->umask, 027);
	assert_string_equal(p->directory, "/tmp");
	assert_string_equal(p->environment.items[0], "A=web");
	assert_true(p->redirect_stderr);
	assert_int_equal(p->out.kind, LOG_KIND_FILE);
	assert_string_equal(p->out.path, "/dev/stdout");
	assert_int_equal(p->out.max_bytes, 1024);
	assert_int_equal(p->out.backups, 2);
	assert_int_equal(p->err.kind, LOG_KIND_NONE);
	assert_int_equal(p->n_sockets, 2);
	assert_string_equal(p->sockets[1].name, "rpc");
	assert_string_equal(p->sockets[1].address, "/run/web.sock");
	assert_int_equal(p->ready, READY_RPC);
	assert_string_equal(p->ready_target, "/run/web.sock");
	assert_int_equal(p->ready_timeout_ms, 9000);
	assert_string_equal(reported, "");
}

static void test_numbered_processes(void **state)
{
	(void)state;
	assert_int_equal(build("[program:gw]\ncommand=gw --listen 127.0.0.1:810%(process_num)d\n"
			       "numprocs=2\nenvironment=N=%(process_num)d,OF=%(numprocs)d\n"
			       "sockets=rpc=%(ENV_RUN_DIR)s/gw.%(process_num)d.sock\n"
			       "[program:w]\ncommand=w\nnumprocs=3\nnumprocs_start=5\n"
			       "process_name=p_%(process_num)02d\n"),
		0);
	assert_int_equal(pod.n_processes, 5);
	assert_string_equal(pod.processes[0].label, "gw.0");
	assert_string_equal(pod.processes[1].label, "gw.1");
	assert_string_equal(pod.processes[1].command.items[2], "127.0.0.1:8101");
	assert_string_equal(pod.processes[1].environment.items[0], "N=1");
	assert_string_equal(pod.processes[1].environment.items[1], "OF=2");
	assert_string_equal(pod.processes[1].sockets[0].address, "/run/x/gw.1.sock");
	assert_string_equal(pod.processes[2].label, "w:p_05");
	assert_string_equal(pod.processes[4].label, "w:p_07");
	assert_true(process_config_matches(&pod.processes[4], "w"));
	assert_true(process_config_matches(&pod.processes[4], "w:p_07"));
	assert_true(process_config_matches(&pod.processes[4], "p_07"));
	assert_true(process_config_matches(&pod.processes[4], "w:*"));
	assert_true(process_config_matches(&pod.processes[4], "all"));
	assert_false(process_config_matches(&pod.processes[4], "w:p_06"));
	assert_false(process_config_matches(&pod.processes[4], "w:"));
	assert_false(process_config_matches(&pod.processes[4], ""));
}

static void test_order_and_groups(void **state)
{
	(void)state;
	assert_int_equal(build("[program:d]\ncommand=x\n[program:c]\ncommand=x\npriority=2\n"
			       "[program:b]\ncommand=x\npriority=1\n[program:a]\ncommand=x\n"
			       "[group:g]\nprograms=a,c\npriority=1\n"),
		0);
	/* The group's priority (1) counts for a and c, then their own (2 and 999). */
	assert_string_equal(pod.processes[0].label, "b");
	assert_string_equal(pod.processes[1].label, "g:c");
	assert_string_equal(pod.processes[2].label, "g:a");
	assert_string_equal(pod.processes[3].label, "d");
	assert_string_equal(pod.processes[1].group, "g");
	assert_true(process_config_matches(&pod.processes[1], "c"));
	assert_true(process_config_matches(&pod.processes[1], "g"));
}

static void test_dependencies(void **state)
{
	(void)state;
	assert_int_equal(build("[program:front]\ncommand=x\ndepends_on=back, one\n"
			       "[program:back]\ncommand=x\nnumprocs=2\n[program:one]\ncommand=x\n"),
		0);
	assert_int_equal(pod.processes[0].n_needs, 3);
	assert_int_equal(pod.processes[0].needs[0], 1);
	assert_int_equal(pod.processes[0].needs[2], 3);
	expect_error("[program:a]\ncommand=x\ndepends_on=nobody\n",
		"there is no program, group or process \"nobody\"");
	expect_error("[program:a]\ncommand=x\ndepends_on=b\n[program:b]\ncommand=x\ndepends_on=c\n"
		     "[program:c]\ncommand=x\ndepends_on=a\n",
		"depends_on goes in a circle");
}

static void test_supervisord_section(void **state)
{
	(void)state;
	assert_int_equal(
		build("[supervisord]\nenvironment=BASE=\"/srv\"\nexit_on_fatal=true\numask=077\n"
		      "childlogdir=/var/log\noutput_prefix=never\n"
		      "[program:a]\ncommand=%(ENV_BASE)s/a\nstdout_logfile=AUTO\n"),
		0);
	assert_true(pod.exit_on_fatal);
	assert_int_equal(pod.umask, 077);
	assert_int_equal(pod.output_prefix, OUTPUT_PREFIX_NEVER);
	assert_string_equal(pod.processes[0].command.items[0], "/srv/a");
	assert_int_equal(pod.processes[0].out.kind, LOG_KIND_AUTO);
	assert_string_equal(pod.processes[0].out.path, "/var/log/a-stdout.log");
}

static void test_readiness_targets(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		enum ready_kind kind;
		const char *target;
	} good[] = {{"none", READY_NONE, NULL}, {"notify", READY_NOTIFY, NULL},
		{"rpc:/x.sock", READY_RPC, "/x.sock"}, {"tcp:80", READY_TCP, "80"},
		{"tcp:[::1]:80", READY_TCP, "[::1]:80"}, {"http:80/ready", READY_HTTP, "80/ready"},
		{"http://localhost:80/ready", READY_HTTP, "http://localhost:80/ready"}};
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		char text[256];
		snprintf(text, sizeof text, "[program:a]\ncommand=x\nready=%s\n", good[i].text);
		assert_int_equal(build(text), 0);
		assert_int_equal(pod.processes[0].ready, good[i].kind);
		if (good[i].target)
			assert_string_equal(pod.processes[0].ready_target, good[i].target);
	}
	static const char *const bad[] = {"maybe", "tcp", "tcp:", "http", "none:1", "notify:x", ""};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		char text[256];
		snprintf(text, sizeof text, "[program:a]\ncommand=x\nready=%s\n", bad[i]);
		expect_error(text, "pod.conf:3 ready: ");
	}
	expect_error("[program:a]\ncommand=x\nready=rpc\n", "needs a socket named rpc");
}

static void test_mistakes(void **state)
{
	(void)state;
	expect_error("[program:a]\n", "E pod.conf:1 [program:a] has no command");
	expect_error("[program:a]\ncommand=\n", "has no command");
	expect_error("[program:a]\ncommand='x\n", "pod.conf:2 command: a ' is not closed");
	expect_error("[program:a]\ncommand=x\nstartsecs=soon\n",
		"pod.conf:3 startsecs: \"soon\" is not");
	expect_error(
		"[program:a]\ncommand=x\nnumprocs=many\n", "pod.conf:3 numprocs: \"many\" is not");
	expect_error("[program:a]\ncommand=x\nnumprocs=99999\n", "from 0 to 1024");
	expect_error("[program:a]\ncommand=x\nnumprocs=2\nprocess_name=same\n",
		"two processes are called");
	expect_error("[program:a]\ncommand=x\nprocess_name=a/b\n", "process_name: \"a/b\"");
	expect_error("[program:a b]\ncommand=x\n", "[program:a b]: the name");
	expect_error("[program:]\ncommand=x\n", "[program:]: the name");
	expect_error("[program:a]\ncommand=%(nothing)s\n", "%(nothing)s is not a known expansion");
	expect_error("[program:a]\ncommand=%(ENV_NOTHING)s\n", "the environment has no NOTHING");
	expect_error("[program:a]\ncommand=x\nuser=nobody-of-that-name\n", "there is no user");
	expect_error("[program:a]\ncommand=x\nstopsignal=STOPPIT\n", "not a signal");
	expect_error("[program:a]\ncommand=x\nautorestart=perhaps\n", "true, false or unexpected");
	expect_error("[program:a]\ncommand=x\nsockets=http\n", "is not NAME=ADDRESS");
	expect_error("[program:a]\ncommand=x\nsockets=a=x\n", "is not host:port");
	expect_error("[program:a]\ncommand=x\nsockets=a=/x,a=/y\n", "two sockets of the name");
	expect_error("[program:a]\ncommand=x\nsockets=a:b=/x\n", "no colon");
	expect_error("[program:a]\ncommand=x\nenvironment=A\n", "environment: expected =");
	expect_error("[eventlistener:a]\ncommand=x\n", "is not supported");
	expect_error("[fcgi-program:a]\ncommand=x\n", "is not supported");
	expect_error("[group:g]\nprograms=a\n", "there is no [program:a]");
	expect_error("[program:a]\ncommand=x\n[group:g]\n", "[group:g] has no programs");
	expect_error("[program:a]\ncommand=x\n[group:g]\nprograms=a\n[group:h]\nprograms=a\n",
		"a is in [group:g] already");
	/* One message a mistake, not one a process. */
	assert_int_equal(build("[program:a]\ncommand=x\nnumprocs=50\nstartsecs=soon\n"), -1);
	assert_int_equal(errors, 1);
}

static void test_what_has_no_effect_is_said(void **state)
{
	(void)state;
	expect_warning("[program:a]\ncommand=x\ncolour=red\nnumprocs=2\n",
		"W pod.conf:3 colour: not a known key");
	expect_warning(
		"[program:a]\ncommand=x\nserverurl=AUTO\n", "W pod.conf:3 serverurl: podctl");
	expect_warning(
		"[supervisord]\nnodaemon=true\n[program:a]\ncommand=x\n", "W pod.conf:2 nodaemon");
	expect_warning("[unix_http_server]\nfile=/x\n[program:a]\ncommand=x\n", "has no effect");
	expect_warning("[supervisorctl]\n[program:a]\ncommand=x\n", "has no effect");
	expect_warning("[rpcinterface:supervisor]\nx=y\n[program:a]\ncommand=x\n", "has no effect");
	expect_warning(
		"[programs:a]\n[program:b]\ncommand=x\n", "[programs:a] is not a known section");
	expect_warning("", "there is no [program:x]");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_defaults_are_those_of_supervisord, tear_down),
		cmocka_unit_test_teardown(test_every_key, tear_down),
		cmocka_unit_test_teardown(test_numbered_processes, tear_down),
		cmocka_unit_test_teardown(test_order_and_groups, tear_down),
		cmocka_unit_test_teardown(test_dependencies, tear_down),
		cmocka_unit_test_teardown(test_supervisord_section, tear_down),
		cmocka_unit_test_teardown(test_readiness_targets, tear_down),
		cmocka_unit_test_teardown(test_mistakes, tear_down),
		cmocka_unit_test_teardown(test_what_has_no_effect_is_said, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
