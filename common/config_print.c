#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/config.h"
#include "common/config_value.h"

#define HELP_COLUMN 34
#define HELP_WIDTH  100
#define MAX_TEXT    (70u << 10) /* a secret of the largest size */

static const char *section_of(const struct config_row *row, const char *current)
{
	return row->section ? row->section : current ? current : "Options";
}

/* Words from `column` on, wrapped; the cursor stands at `at`. */
static void print_wrapped(FILE *out, const char *text, int at, int column)
{
	if (at >= column) {
		fputc('\n', out);
		at = 0;
	}
	fprintf(out, "%*s", column - at, "");
	at = column;
	while (*text) {
		int len = (int)strcspn(text, " ");
		if (at > column && at + 1 + len > HELP_WIDTH) {
			fprintf(out, "\n%*s", column, "");
			at = column;
		}
		if (at > column)
			fputc(' ', out);
		at += (at > column) + len;
		fwrite(text, 1, (size_t)len, out);
		text += len;
		text += strspn(text, " ");
	}
	fputc('\n', out);
}

/* What a plain number means, where that is not obvious. NULL: nothing to say. */
static const char *unit_note(const struct config_row *row)
{
	if (row->type == CONFIG_MS)
		return row->unit && strcmp(row->unit, "ms") == 0 ? "plain numbers are milliseconds"
								 : NULL;
	return row->unit;
}

__attribute__((format(printf, 2, 3))) static void add_detail(struct buf *out, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	buf_append_str(out, out->len ? ", " : "");
	buf_vprintf(out, fmt, ap);
	va_end(ap);
}

/* "PORT, default 8080, read again on SIGHUP" */
static void append_details(const struct config_row *row, struct buf *out)
{
	if (row->env && row->flag)
		add_detail(out, "%s", row->env);
	if (row->type == CONFIG_SECRET)
		add_detail(out, "or %s_FILE", row->env);
	if (row->env_alias)
		add_detail(out, "also %s", row->env_alias);
	if (row->def && *row->def)
		add_detail(out, "default %s", row->def);
	if (unit_note(row))
		add_detail(out, "%s", unit_note(row));
	if (row->reloadable)
		add_detail(out, "read again on SIGHUP");
	buf_append_char(out, '\0');
}

void config_print_help(const struct config_row *const *tables, FILE *out, bool color)
{
	const char *bold = color ? "\033[1m" : "", *dim = color ? "\033[2m" : "",
		   *plain = color ? "\033[0m" : "";
	const char *section = NULL;
	struct buf text = BUF_INIT(4096);
	CONFIG_FOREACH_ROW (row, tables) {
		const char *here = section_of(row, section);
		if (!section || strcmp(here, section) != 0)
			fprintf(out, "\n%s%s%s\n", bold, here, plain);
		section = here;
		buf_clear(&text);
		buf_printf(&text, "%s%s", row->flag ? "--" : "", row->flag ? row->flag : row->env);
		if (row->flag && row->type != CONFIG_BOOL) {
			buf_append_char(&text, ' ');
			config_value_hint(row, &text);
		}
		fprintf(out, "  %s%.*s%s", bold, (int)text.len, (char *)text.data, plain);
		print_wrapped(out, row->help ? row->help : "", 2 + (int)text.len, HELP_COLUMN);
		buf_clear(&text);
		append_details(row, &text);
		if (text.len > 1) {
			fputs(dim, out);
			print_wrapped(out, (char *)text.data, 0, HELP_COLUMN);
			fputs(plain, out);
		}
	}
	fprintf(out, "\n%sAlso%s\n", bold, plain);
	for (const struct config_action_flag *a = config_action_flags; a->flag; a++) {
		int n = fprintf(out, "  %s--%s%s", bold, a->flag, plain);
		print_wrapped(out, a->help, n - (color ? 8 : 0), HELP_COLUMN);
	}
	buf_free(&text);
}

/* As a shell, systemd and docker read it: bare where that is the same to all three. */
static void print_assignment(const struct config_row *row, const char *value, FILE *out)
{
	static const char bare[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
				   "_-./:@%+,=";
	fprintf(out, "%s=", row->env);
	if (strspn(value, bare) == strlen(value)) {
		fprintf(out, "%s\n", value);
		return;
	}
	fputc('\'', out);
	for (; *value; value++)
		if (*value == '\'')
			fputs("'\\''", out);
		else
			fputc(*value, out);
	fputs("'\n", out);
}

void config_print_values(const struct config_row *const *tables, const void *conf, FILE *out)
{
	static const char *const sources[] = {"default", "environment", "file", "flag"};
	struct buf text = BUF_INIT(MAX_TEXT);
	CONFIG_FOREACH_ROW (row, tables) {
		const void *slot = (const char *)conf + row->offset;
		const char *source = sources[config_source_of(conf, row)];
		if (row->type == CONFIG_SECRET) {
			bool set = **(char *const *)slot;
			fprintf(out, "# %s\n# %s=%s\n", set ? source : "default", row->env,
				set ? "(set)" : "(not set)");
			continue;
		}
		buf_clear(&text);
		config_value_format(row, slot, &text);
		if (row->type == CONFIG_STRING || row->type == CONFIG_PATH) {
			/* A line break cannot be written in such a file. */
			for (size_t i = 0; i < text.len; i++)
				if (text.data[i] == '\n' || text.data[i] == '\r')
					text.data[i] = ' ';
		}
		buf_append_char(&text, '\0');
		if (buf_failed(&text)) {
			fprintf(out, "# %s is too long to print\n",
				row->env ? row->env : row->flag);
			continue;
		}
		if (row->type == CONFIG_URL)
			config_hide_userinfo((char *)text.data);
		fprintf(out, "# %s\n", source);
		if (row->env)
			print_assignment(row, (char *)text.data, out);
		else
			fprintf(out, "# --%s %s\n", row->flag, (char *)text.data);
	}
	buf_free(&text);
}

static void print_cell(const char *text, FILE *out)
{
	for (; text && *text; text++) {
		if (*text == '|' || *text == '<')
			fputc('\\', out);
		fputc(*text == '\n' ? ' ' : *text, out);
	}
}

void config_print_markdown(const struct config_row *const *tables, FILE *out)
{
	const char *section = NULL;
	struct buf hint = BUF_INIT(1024);
	CONFIG_FOREACH_ROW (row, tables) {
		const char *here = section_of(row, section);
		if (!section || strcmp(here, section) != 0)
			fprintf(out,
				"\n### %s\n\n| flag | environment | default | meaning |\n"
				"| --- | --- | --- | --- |\n",
				here);
		section = here;
		fputs("| ", out);
		if (row->flag) {
			buf_clear(&hint);
			config_value_hint(row, &hint);
			buf_append_char(&hint, '\0');
			fprintf(out, "`--%s%s", row->flag, hint.len > 1 ? " " : "");
			print_cell((char *)hint.data, out);
			fputs("`", out);
		}
		fputs(" | ", out);
		if (row->env)
			fprintf(out, "`%s`", row->env);
		if (row->type == CONFIG_SECRET)
			fprintf(out, ", `%s_FILE`", row->env);
		if (row->env_alias)
			fprintf(out, ", `%s`", row->env_alias);
		fputs(" | ", out);
		if (row->def && *row->def) {
			fputc('`', out);
			print_cell(row->def, out);
			fputc('`', out);
		}
		fputs(" | ", out);
		print_cell(row->help, out);
		if (unit_note(row))
			fprintf(out, "; %s", unit_note(row));
		fprintf(out, "%s |\n", row->reloadable ? "; read again on SIGHUP" : "");
	}
	buf_free(&hint);
}
