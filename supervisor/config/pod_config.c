#include "supervisor/config/pod_config.h"

#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/buf.h"
#include "supervisor/config/depends.h"
#include "supervisor/config/expand.h"
#include "supervisor/config/keys.h"

#define VALUE_MAX_BYTES  65536
#define DEFAULT_PRIORITY 999

struct builder {
	struct pod_config *pod;
	const struct ini *doc;
	const char *here; /* the directory of the file that is being built from */
	pod_config_env *env;
	void *env_arg;
	struct report *report;
	char host[256];
};

/* What a section's values may refer to. */
struct names {
	struct expand_name list[7];
};

static const char *look_up_env(const char *variable, void *arg)
{
	const struct builder *b = arg;
	/* [supervisord] environment= counts, as it does in supervisord. */
	size_t len = strlen(variable);
	for (size_t i = 0; i < b->pod->environment.n; i++) {
		const char *pair = b->pod->environment.items[i];
		if (strncmp(pair, variable, len) == 0 && pair[len] == '=')
			return pair + len + 1;
	}
	return b->env ? b->env(variable, b->env_arg) : NULL;
}

static struct names section_names(const struct builder *b, const char *program, const char *group,
	int64_t number, int64_t count)
{
	struct names names = {{{"here", b->here, 0}, {"host_node_name", b->host, 0}}};
	if (program) {
		names.list[2] = (struct expand_name){"program_name", program, 0};
		names.list[3] = (struct expand_name){"group_name", group, 0};
		names.list[4] = (struct expand_name){"process_num", NULL, (long)number};
		names.list[5] = (struct expand_name){"numprocs", NULL, (long)count};
	}
	return names;
}

/* The value, expanded; malloc()ed, NULL when that was reported. */
static char *expanded(struct builder *b, const struct ini_entry *entry, const struct names *names)
{
	struct expand_names known = {names->list, look_up_env, b};
	struct buf out = BUF_INIT(VALUE_MAX_BYTES);
	char error[256];
	if (expand(entry->value, &known, &out, error, sizeof error) < 0) {
		report_error(b->report, entry->file, entry->line, "%s: %s", entry->key, error);
		buf_free(&out);
		return NULL;
	}
	if (buf_append_char(&out, '\0') < 0) {
		report_error(b->report, entry->file, entry->line, "%s: too long", entry->key);
		buf_free(&out);
		return NULL;
	}
	return buf_take(&out, NULL);
}

static void set_entry(struct builder *b, const struct key_row *rows, void *conf,
	const struct ini_entry *entry, const struct names *names, bool first)
{
	const struct key_row *row = key_find(rows, entry->key);
	if (!row || row->kind == KEY_NO_EFFECT) {
		if (first)
			report_warning(b->report, entry->file, entry->line, "%s: %s", entry->key,
				row ? row->def : "not a known key");
		return;
	}
	if (row->kind == KEY_ELSEWHERE)
		return;
	char *value = expanded(b, entry, names);
	if (!value)
		return;
	char error[256];
	if (key_set(row, conf, value, error, sizeof error) < 0)
		report_error(b->report, entry->file, entry->line, "%s: %s", entry->key, error);
	free(value);
}

/* A number that is needed before processes exist. */
static int64_t early_number(struct builder *b, const struct ini_section *section, const char *key,
	int64_t min, int64_t max, int64_t def)
{
	const struct ini_entry *entry = ini_entry(section, key);
	if (!entry)
		return def;
	struct names names = section_names(b, NULL, NULL, 0, 0);
	char *value = expanded(b, entry, &names);
	int64_t number = def;
	if (value && value_int(value, min, max, &number) < 0)
		report_error(b->report, entry->file, entry->line,
			"%s: \"%s\" is not a whole number from %lld to %lld", key, value,
			(long long)min, (long long)max);
	free(value);
	return number;
}

static bool name_is_good(const char *name)
{
	return *name && strlen(name) <= 128 && !strpbrk(name, " \t\n:/,");
}

static struct process_config *add_process(struct builder *b, const struct ini_section *section)
{
	struct pod_config *pod = b->pod;
	struct process_config *bigger = NULL;
	if (pod->n_processes < POD_MAX_PROCESSES)
		bigger = realloc(pod->processes, (pod->n_processes + 1) * sizeof *bigger);
	if (!bigger) {
		report_error(b->report, section->file, section->line, "more than %d processes",
			POD_MAX_PROCESSES);
		return NULL;
	}
	pod->processes = bigger;
	struct process_config *process = &bigger[pod->n_processes++];
	*process = (struct process_config){.line = section->line, .order = pod->n_processes};
	process->file = strdup(section->file);
	if (!process->file || key_set_defaults(program_keys, process) < 0) {
		report_error(b->report, section->file, section->line, "out of memory");
		return NULL;
	}
	return process;
}

static int name_process(struct builder *b, const struct ini_section *section,
	struct process_config *process, const char *program, const char *group,
	const struct names *names, bool numbered)
{
	struct ini_entry fallback = {.key = (char *)"process_name",
		.value = (char *)(numbered ? "%(program_name)s.%(process_num)d"
					   : "%(program_name)s"),
		.file = section->file,
		.line = section->line};
	const struct ini_entry *entry = ini_entry(section, "process_name");
	if (!entry)
		entry = &fallback;
	process->name = expanded(b, entry, names);
	if (!process->name)
		return -1;
	if (!name_is_good(process->name)) {
		report_error(b->report, entry->file, entry->line,
			"process_name: \"%s\" is empty, too long or has a blank, / , or :",
			process->name);
		return -1;
	}
	process->program = strdup(program);
	process->group = strdup(group);
	if (!process->program || !process->group)
		return -1;
	bool plain = strncmp(process->name, group, strlen(group)) == 0;
	if (asprintf(&process->label, "%s%s%s", plain ? "" : group, plain ? "" : ":",
		    process->name) < 0) {
		process->label = NULL;
		return -1;
	}
	for (size_t i = 0; i + 1 < b->pod->n_processes; i++) {
		const struct process_config *other = &b->pod->processes[i];
		if (!other->label || strcmp(other->label, process->label) != 0)
			continue;
		report_error(b->report, entry->file, entry->line, "two processes are called %s%s",
			process->label, numbered ? " (process_name needs %(process_num)d)" : "");
		return -1;
	}
	return 0;
}

static void finish_log(struct builder *b, struct process_config *process, struct log_config *log,
	const char *stream)
{
	if (log->kind != LOG_KIND_AUTO)
		return;
	if (asprintf(&log->path, "%s/%s-%s.log", b->pod->child_log_dir, process->label, stream) <
		0) {
		log->path = NULL;
		report_error(b->report, process->file, process->line, "out of memory");
	}
}

static void check_log_directory(struct builder *b, const struct process_config *process,
	const struct log_config *log, const char *key)
{
	const char *slash = log->kind == LOG_KIND_FILE ? strrchr(log->path, '/') : NULL;
	if (!slash || slash == log->path)
		return;
	char *directory = strndup(log->path, (size_t)(slash - log->path));
	struct stat st;
	if (directory && (stat(directory, &st) < 0 || !S_ISDIR(st.st_mode)))
		report_error(b->report, process->file, process->line,
			"[program:%s] %s: there is no directory %s", process->program, key,
			directory);
	free(directory);
}

/* What can be checked only when all keys are known. */
static void finish_process(struct builder *b, const struct ini_section *section,
	struct process_config *process, bool has_errors)
{
	/* One that could not be read has been reported as such. */
	if (!process->command.n && !(has_errors && ini_entry(section, "command")))
		report_error(b->report, process->file, process->line, "[program:%s] has no command",
			process->program);
	finish_log(b, process, &process->out, "stdout");
	finish_log(b, process, &process->err, "stderr");
	check_log_directory(b, process, &process->out, "stdout_logfile");
	check_log_directory(b, process, &process->err, "stderr_logfile");
	if (process->ready != READY_RPC || process->ready_target)
		return;
	for (size_t i = 0; i < process->n_sockets; i++)
		if (strcmp(process->sockets[i].name, "rpc") == 0)
			process->ready_target = strdup(process->sockets[i].address);
	if (!process->ready_target)
		report_error(b->report, process->file, process->line,
			"[program:%s] ready=rpc needs a socket named rpc, or ready=rpc:SOCKET",
			process->program);
}

static const struct ini_section *group_of(
	struct builder *b, const char *program, const char **group, bool report)
{
	const struct ini_section *found = NULL;
	for (size_t i = 0; i < b->doc->n_sections; i++) {
		const struct ini_section *section = &b->doc->sections[i];
		const struct ini_entry *programs = ini_entry(section, "programs");
		struct strings list = {0};
		if (strncmp(section->name, "group:", 6) != 0 || !programs ||
			value_list(programs->value, &list) < 0)
			continue;
		for (size_t j = 0; j < list.n; j++) {
			if (strcmp(list.items[j], program) != 0)
				continue;
			if (found && report)
				report_error(b->report, programs->file, programs->line,
					"programs: %s is in [%s] already", program, found->name);
			found = section;
			*group = section->name + 6;
		}
		strings_free(&list);
	}
	return found;
}

static void build_program(struct builder *b, const struct ini_section *section)
{
	const char *program = section->name + 8, *group = program;
	if (!name_is_good(program)) {
		report_error(b->report, section->file, section->line,
			"[%s]: the name is empty, too long or has a blank, / , or :",
			section->name);
		return;
	}
	const struct ini_section *group_section = group_of(b, program, &group, true);
	bool numbered = ini_entry(section, "numprocs") != NULL;
	int64_t count = early_number(b, section, "numprocs", 0, POD_MAX_PROCESSES, 1);
	int64_t start = early_number(b, section, "numprocs_start", 0, 1000000, 0);
	for (int64_t i = 0; i < count; i++) {
		unsigned errors = b->report->errors;
		struct process_config *process = add_process(b, section);
		if (!process)
			return;
		struct names names = section_names(b, program, group, start + i, count);
		if (name_process(b, section, process, program, group, &names, numbered) < 0) {
			if (b->report->errors == errors)
				report_error(
					b->report, section->file, section->line, "out of memory");
			return;
		}
		for (size_t j = 0; j < section->n_entries; j++)
			set_entry(b, program_keys, process, &section->entries[j], &names, i == 0);
		finish_process(b, section, process, b->report->errors > errors);
		process->group_priority = group_section
						  ? early_number(b, group_section, "priority",
							    -1000000, 1000000, DEFAULT_PRIORITY)
						  : process->priority;
		/* The same mistake a hundred times helps nobody. */
		if (b->report->errors > errors)
			return;
	}
}

static void check_group(struct builder *b, const struct ini_section *section)
{
	const struct ini_entry *programs = ini_entry(section, "programs");
	if (!name_is_good(section->name + 6))
		report_error(b->report, section->file, section->line, "[%s]: not a good name",
			section->name);
	for (size_t i = 0; i < section->n_entries; i++) {
		const struct ini_entry *entry = &section->entries[i];
		if (strcmp(entry->key, "programs") != 0 && strcmp(entry->key, "priority") != 0)
			report_warning(b->report, entry->file, entry->line, "%s: not a known key",
				entry->key);
	}
	if (!programs) {
		report_error(b->report, section->file, section->line, "[%s] has no programs",
			section->name);
		return;
	}
	struct strings list = {0};
	if (value_list(programs->value, &list) < 0)
		report_error(b->report, programs->file, programs->line, "out of memory");
	for (size_t i = 0; i < list.n; i++) {
		char name[160];
		snprintf(name, sizeof name, "program:%s", list.items[i]);
		if (!ini_section(b->doc, name))
			report_error(b->report, programs->file, programs->line,
				"programs: there is no [%s]", name);
	}
	strings_free(&list);
}

/* Not to be passed over: without it everything would run with more rights than was asked for. */
static void check_user(struct builder *b, const struct ini_entry *entry, const struct names *names)
{
	char *value = expanded(b, entry, names), *end = NULL;
	if (!value)
		return;
	const struct passwd *user = getpwnam(value);
	unsigned long uid = user ? user->pw_uid : strtoul(value, &end, 10);
	if ((end && (end == value || *end)) || uid != geteuid())
		report_error(b->report, entry->file, entry->line,
			"user: the supervisor does not become \"%s\": start it as that user, or give "
			"user= to the programs",
			value);
	free(value);
}

static void build_supervisord(struct builder *b, const struct ini_section *section)
{
	struct names names = section_names(b, NULL, NULL, 0, 0);
	for (size_t i = 0; i < section->n_entries; i++) {
		set_entry(b, supervisord_keys, b->pod, &section->entries[i], &names, true);
		if (strcmp(section->entries[i].key, "user") == 0)
			check_user(b, &section->entries[i], &names);
	}
}

static bool shares_address(const struct process_config *a, const char *address)
{
	for (size_t i = 0; i < a->n_sockets; i++)
		if (strcmp(a->sockets[i].address, address) == 0)
			return true;
	return false;
}

/* Two programs cannot listen at one place; which of them would get it is chance. */
static void check_shared_addresses(struct builder *b)
{
	const struct pod_config *pod = b->pod;
	for (size_t i = 0; i < pod->n_processes; i++) {
		const struct process_config *process = &pod->processes[i];
		for (size_t s = 0; s < process->n_sockets; s++)
			for (size_t j = 0; j < i; j++)
				if (shares_address(&pod->processes[j], process->sockets[s].address))
					report_error(b->report, process->file, process->line,
						"sockets: %s is an address of %s already",
						process->sockets[s].address,
						pod->processes[j].label);
	}
}

static bool has_prefix(const char *text, const char *prefix)
{
	return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* The directory of an included file, as it was named. The main file's is known. */
static void enter_file(struct builder *b, const char *file, char *directory, size_t size)
{
	const char *slash = strrchr(file, '/');
	if (!slash || strcmp(file, b->doc->files[0]) == 0)
		return;
	snprintf(directory, size, "%.*s", slash == file ? 1 : (int)(slash - file), file);
	b->here = directory;
}

static void build_section(struct builder *b, const struct ini_section *section)
{
	const char *name = section->name;
	if (has_prefix(name, "program:"))
		build_program(b, section);
	else if (has_prefix(name, "group:"))
		check_group(b, section);
	else if (strcmp(name, "supervisord") == 0 || strcmp(name, "include") == 0)
		return;
	else if (has_prefix(name, "eventlistener:") || has_prefix(name, "fcgi-program:"))
		report_error(b->report, section->file, section->line,
			"[%s] is not supported: this supervisor has no event listeners and no FastCGI "
			"sockets (a program may get any socket by sockets=)",
			name);
	else if (strcmp(name, "unix_http_server") == 0 || strcmp(name, "inet_http_server") == 0 ||
		 strcmp(name, "supervisorctl") == 0 || has_prefix(name, "rpcinterface:"))
		report_warning(b->report, section->file, section->line,
			"[%s] has no effect: podctl finds the supervisor by its socket", name);
	else
		report_warning(b->report, section->file, section->line,
			"[%s] is not a known section", name);
}

static int compare_processes(const void *a, const void *b)
{
	const struct process_config *x = a, *y = b;
	if (x->group_priority != y->group_priority)
		return x->group_priority < y->group_priority ? -1 : 1;
	if (x->priority != y->priority)
		return x->priority < y->priority ? -1 : 1;
	return x->order < y->order ? -1 : 1;
}

int pod_config_build(struct pod_config *pod, const struct ini *doc, const char *here,
	pod_config_env *env, void *arg, struct report *report)
{
	struct builder b = {
		.pod = pod, .doc = doc, .here = here, .env = env, .env_arg = arg, .report = report};
	unsigned errors = report->errors;
	*pod = (struct pod_config){0};
	if (gethostname(b.host, sizeof b.host - 1) < 0)
		b.host[0] = '\0';
	const struct ini_section *supervisord = ini_section(doc, "supervisord");
	if (key_set_defaults(supervisord_keys, pod) < 0)
		report_error(report, NULL, 0, "out of memory");
	if (supervisord)
		build_supervisord(&b, supervisord);
	const char *run_dir = look_up_env("RUN_DIR", &b);
	if (!pod->child_log_dir)
		pod->child_log_dir = strdup(run_dir ? run_dir : "/tmp");
	for (size_t i = 0; i < doc->n_sections; i++) {
		char directory[PATH_MAX];
		b.here = here;
		enter_file(&b, doc->sections[i].file, directory, sizeof directory);
		build_section(&b, &doc->sections[i]);
	}
	check_shared_addresses(&b);
	if (!pod->n_processes && report->errors == errors)
		report_warning(report, NULL, 0, "there is no [program:x] in this configuration");
	if (report->errors == errors) {
		if (pod->n_processes)
			qsort(pod->processes, pod->n_processes, sizeof *pod->processes,
				compare_processes);
		depends_resolve(pod, report);
	}
	if (report->errors == errors)
		return 0;
	pod_config_free(pod);
	return -1;
}

static void free_process(struct process_config *process)
{
	char *texts[] = {process->program, process->group, process->name, process->label,
		process->file, process->directory, process->user, process->out.path,
		process->err.path, process->ready_target};
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		free(texts[i]);
	strings_free(&process->command);
	strings_free(&process->environment);
	strings_free(&process->environment_files);
	strings_free(&process->secrets);
	strings_free(&process->depends_on);
	for (size_t i = 0; i < process->n_sockets; i++) {
		free(process->sockets[i].name);
		free(process->sockets[i].address);
	}
	free(process->sockets);
	free(process->needs);
}

void pod_config_free(struct pod_config *pod)
{
	for (size_t i = 0; i < pod->n_processes; i++)
		free_process(&pod->processes[i]);
	free(pod->processes);
	strings_free(&pod->environment);
	free(pod->child_log_dir);
	*pod = (struct pod_config){0};
}

bool process_config_matches(const struct process_config *process, const char *name)
{
	size_t group = strlen(process->group);
	if (strncmp(name, process->group, group) == 0 && name[group] == ':' &&
		(strcmp(name + group + 1, "*") == 0 ||
			strcmp(name + group + 1, process->name) == 0))
		return true;
	const char *const names[] = {
		"all", process->label, process->name, process->program, process->group};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (strcmp(name, names[i]) == 0)
			return true;
	return false;
}
