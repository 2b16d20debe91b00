#include "supervisor/config/ini.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/span.h"

struct parser {
	struct ini *doc;
	struct report *report;
	const char *file;
	unsigned line;
	struct ini_section *section; /* NULL before the first header and after a bad one */
	bool skipping;               /* below a bad header: said once */
	struct ini_entry *entry;     /* what an indented line continues */
	bool out_of_memory;
};

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v';
}

static struct span trim(struct span s)
{
	while (s.len && is_blank(s.data[0])) {
		s.data++;
		s.len--;
	}
	while (s.len && is_blank(s.data[s.len - 1]))
		s.len--;
	return s;
}

/* Everything up to a comment: ; or # at the start or after white space. */
static struct span without_comment(struct span s)
{
	for (size_t i = 0; i < s.len; i++)
		if ((s.data[i] == ';' || s.data[i] == '#') && (i == 0 || is_blank(s.data[i - 1])))
			return (struct span){s.data, i};
	return s;
}

static char *copy(struct parser *p, struct span s)
{
	char *text = strndup(s.data ? s.data : "", s.len);
	if (!text)
		p->out_of_memory = true;
	return text;
}

/* Room for one more element; arrays grow by doubling at powers of two. */
static void *grow(struct parser *p, void *array, size_t n, size_t element_size)
{
	if (n & (n - 1))
		return array;
	void *bigger = realloc(array, (n ? 2 * n : 1) * element_size);
	if (!bigger)
		p->out_of_memory = true;
	return bigger;
}

static void parse_header(struct parser *p, struct span line)
{
	p->entry = NULL;
	p->section = NULL;
	p->skipping = true;
	const char *end = memrchr(line.data, ']', line.len);
	struct span name = end ? trim((struct span){line.data + 1, (size_t)(end - line.data) - 1})
			       : line;
	if (!end || end + 1 != line.data + line.len) {
		report_error(p->report, p->file, p->line, "a section header is written [name]");
		return;
	}
	if (!name.len) {
		report_error(p->report, p->file, p->line, "a section without a name");
		return;
	}
	for (size_t i = 0; i < p->doc->n_sections; i++)
		if (span_equal_str(name, p->doc->sections[i].name)) {
			p->section = &p->doc->sections[i];
			return;
		}
	if (p->doc->n_sections == INI_MAX_SECTIONS) {
		report_error(
			p->report, p->file, p->line, "more than %d sections", INI_MAX_SECTIONS);
		return;
	}
	void *sections = grow(p, p->doc->sections, p->doc->n_sections, sizeof *p->doc->sections);
	if (!sections)
		return;
	p->doc->sections = sections;
	char *text = copy(p, name);
	if (!text)
		return;
	p->section = &p->doc->sections[p->doc->n_sections++];
	*p->section = (struct ini_section){.name = text, .file = p->file, .line = p->line};
}

/* value is taken over. */
static struct ini_entry *add_entry(struct parser *p, struct span key, char *value)
{
	char *text = value ? copy(p, key) : NULL;
	if (!text)
		goto fail_value;
	for (char *c = text; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	struct ini_section *section = p->section;
	for (size_t i = 0; i < section->n_entries; i++) {
		struct ini_entry *entry = &section->entries[i];
		if (strcmp(entry->key, text) != 0)
			continue;
		report_warning(p->report, p->file, p->line,
			"\"%s\" replaces the one at %s:%u in [%s]", text, entry->file, entry->line,
			section->name);
		free(text);
		free(entry->value);
		entry->value = value;
		return entry;
	}
	void *entries = p->doc->n_entries < INI_MAX_ENTRIES
				? grow(p, section->entries, section->n_entries,
					  sizeof *section->entries)
				: NULL;
	if (!entries) {
		if (!p->out_of_memory)
			report_error(p->report, p->file, p->line, "more than %d settings",
				INI_MAX_ENTRIES);
		goto fail_key;
	}
	section->entries = entries;
	p->doc->n_entries++;
	struct ini_entry *entry = &section->entries[section->n_entries++];
	*entry = (struct ini_entry){.key = text, .value = value};
	return entry;

fail_key:
	free(text);
fail_value:
	free(value);
	return NULL;
}

static void parse_entry(struct parser *p, struct span line)
{
	p->entry = NULL;
	size_t i = 0;
	while (i < line.len && line.data[i] != '=' && line.data[i] != ':')
		i++;
	struct span key = trim((struct span){line.data, i});
	if (i == line.len || !key.len) {
		report_error(p->report, p->file, p->line,
			"expected [section], key = value or ; comment, not \"%.*s\"",
			(int)(line.len < 60 ? line.len : 60), line.data);
		return;
	}
	if (!p->section) {
		if (!p->skipping)
			report_error(p->report, p->file, p->line,
				"\"%.*s\" stands before the first [section]", SPAN_ARG(key));
		p->skipping = true;
		return;
	}
	struct span value = trim(
		without_comment((struct span){line.data + i + 1, line.len - i - 1}));
	p->entry = add_entry(p, key, copy(p, value));
	if (p->entry) {
		p->entry->file = p->file;
		p->entry->line = p->line;
	}
}

static void continue_entry(struct parser *p, struct span line)
{
	size_t old = strlen(p->entry->value);
	char *value = realloc(p->entry->value, old + 1 + line.len + 1);
	if (!value) {
		p->out_of_memory = true;
		return;
	}
	p->entry->value = value;
	if (old)
		value[old++] = '\n';
	memcpy(value + old, line.data, line.len);
	value[old + line.len] = '\0';
}

static void parse_line(struct parser *p, struct span line)
{
	bool indented = line.len && is_blank(line.data[0]);
	struct span content = trim(line);
	if (!content.len || content.data[0] == ';' || content.data[0] == '#')
		return;
	if (memchr(line.data, '\0', line.len)) {
		report_error(p->report, p->file, p->line, "a NUL byte: this is not a text file");
		return;
	}
	if (indented && p->entry) {
		continue_entry(p, trim(without_comment(content)));
		return;
	}
	content = trim(without_comment(content));
	if (content.data[0] == '[')
		parse_header(p, content);
	else
		parse_entry(p, trim(line));
}

static const char *keep_file_name(struct parser *p, const char *file)
{
	struct ini *doc = p->doc;
	void *files = grow(p, doc->files, doc->n_files, sizeof *doc->files);
	if (!files)
		return NULL;
	doc->files = files;
	char *name = copy(p, span_of(file));
	if (name)
		doc->files[doc->n_files++] = name;
	return name;
}

int ini_parse(struct ini *doc, const char *file, const char *text, size_t len_bytes,
	struct report *report)
{
	struct parser p = {.doc = doc, .report = report};
	unsigned errors = report->errors;
	p.file = keep_file_name(&p, file);
	if (!p.file)
		return -1;
	if (len_bytes > INI_MAX_BYTES) {
		report_error(report, file, 1, "a file of more than %u bytes", INI_MAX_BYTES);
		return -1;
	}
	if (len_bytes >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
		text += 3;
		len_bytes -= 3;
	}
	while (len_bytes && !p.out_of_memory) {
		const char *newline = memchr(text, '\n', len_bytes);
		size_t n = newline ? (size_t)(newline - text) : len_bytes;
		p.line++;
		parse_line(&p, (struct span){text, n});
		n += newline ? 1 : 0;
		text += n;
		len_bytes -= n;
	}
	if (p.out_of_memory)
		report_error(report, p.file, p.line, "out of memory");
	return report->errors > errors ? -1 : 0;
}

const struct ini_section *ini_section(const struct ini *doc, const char *name)
{
	for (size_t i = 0; i < doc->n_sections; i++)
		if (strcmp(doc->sections[i].name, name) == 0)
			return &doc->sections[i];
	return NULL;
}

const struct ini_entry *ini_entry(const struct ini_section *section, const char *key)
{
	for (size_t i = 0; section && i < section->n_entries; i++)
		if (strcmp(section->entries[i].key, key) == 0)
			return &section->entries[i];
	return NULL;
}

void ini_free(struct ini *doc)
{
	for (size_t i = 0; i < doc->n_sections; i++) {
		struct ini_section *section = &doc->sections[i];
		for (size_t j = 0; j < section->n_entries; j++) {
			free(section->entries[j].key);
			free(section->entries[j].value);
		}
		free(section->entries);
		free(section->name);
	}
	free(doc->sections);
	for (size_t i = 0; i < doc->n_files; i++)
		free(doc->files[i]);
	free(doc->files);
	*doc = (struct ini){0};
}
