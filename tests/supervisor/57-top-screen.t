#!/usr/bin/env perl

# podctl top on terminals of several sizes: nothing is wider or longer than they are, what matters most stays, a program that
# was stopped is called stopped, and it goes on when the supervisor is back.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use Pod;

plan skip_all => 'script(1) is missing' if !grep { -x "$_/script" } split /:/, $ENV{PATH};
plan skip_all => 'stty(1) is missing' if !grep { -x "$_/stty" } split /:/, $ENV{PATH};

my $merger = eg_bin('exportermerger');
my $pod = Pod->new(<<"CONF");
[program:exportermerger]
command=$merger
environment=MERGER_PORT=0,EXPORTERMERGER_LISTEN=%(here)s/http.sock
sockets=rpc=%(here)s/exportermerger.sock
ready=rpc
redirect_stderr=true
stdout_logfile=%(here)s/merger.log
[program:broadcasterd]
command=sleep 1000
startsecs=0
[program:worker_with_a_long_name]
command=sleep 1000
startsecs=0
numprocs=20
process_name=%(program_name)s_%(process_num)02d
[program:zz_last]
command=sleep 1000
startsecs=0
CONF
$pod->wait_state(exportermerger => 'RUNNING', zz_last => 'RUNNING', worker_with_a_long_name_19 => 'RUNNING');

# Frames as they are drawn, until one satisfies: its lines without colours. tty: columns and rows; input: what goes on.
sub frames
{
	my ($columns, $rows, $wanted, $what) = @_;
	my $top = eg_bin('podctl') . ' --socket ' . $pod->path('supervisor.sock') . ' top --interval=50ms';
	local $ENV{TERM} = 'xterm';
	my $pid = open my $r, '-|', 'script', '-qec', "stty cols $columns rows $rows; exec $top", '/dev/null' or die;
	local $SIG{ALRM} = sub { die "no frame: $what\n" };
	alarm 60;
	my ($buffer, @lines) = ('');
	my ($found, $tall, $wide) = (0, 0, 0);
	while (!$found && sysread $r, $buffer, 65536, length $buffer) {
		while ($buffer =~ s/\A.*?\033\[H(.*?)\033\[J//s) {
			@lines = map { s/\033\[[0-9;]*[mKJ]//gr =~ s/\r//gr } split /\n/, $1;
			$tall = @lines if @lines > $tall;
			$_ = length for my @widths = @lines;
			for (@widths) { $wide = $_ if $_ > $wide }
			$found ||= $wanted->(@lines);
		}
	}
	alarm 0;
	kill 'KILL', $pid;
	close $r;
	ok $found, $what or diag join "\n", @lines;
	cmp_ok $wide, '<=', $columns, "no line over $columns";
	cmp_ok $tall, '<=', $rows, "no more than $rows lines";
	return @lines;
}
sub has { my ($re, @lines) = @_; return scalar grep { $_ =~ $re } @lines }
# It has nobody on its socket.
my $silent = qr/^broadcasterd does not answer  1 of 2 daemons answer$/;

subtest '200x60: everything' => sub {
	my @lines = frames(200, 60, sub { has($silent, @_) && has(qr/^zz_last/, @_) }, 'all programs');
	ok has(qr/^NAME\s+STATE\s+PID\s+CPU\s+PSS\s+UPTIME\s+RESTARTS$/, @lines), 'all columns';
	is has(qr/^worker/, @lines), 20, 'all programs';
	ok has(qr/^saved .* tokens  \$0\.0000  since the daemons' start$/, @lines), 'since when';
	my ($sum) = map { /^all\s+\S+%\s+(\S+) MB$/ ? $1 : () } @lines;
	my $pss = 0;
	/^\S+\s+RUNNING\s+\d+\s+\S+%\s+(\S+) MB/ and $pss += $1 for @lines;
	cmp_ok abs($sum - $pss), '<', 1.5, 'the sum';
};
subtest '80x24' => sub {
	my @lines = frames(80, 24, sub { has(qr/^all /, @_) }, 'the table');
	ok has(qr/^NAME\s+STATE\s+CPU\s+PSS\s+UPTIME\s+RESTARTS$/, @lines), 'without the PID: long names';
	ok has(qr/^hit ratio/, @lines), 'the numbers of the pod';
	ok has(qr/^and \d+ more$/, @lines), 'as many programs as there is room for';
};
subtest '60x20' => sub {
	my @lines = frames(60, 20, sub { has(qr/^all /, @_) }, 'the table');
	ok has(qr/^NAME\s+STATE\s+CPU\s+PSS$/, @lines), 'fewer columns';
	ok has(qr/^exportermerger\s+RUNNING\s+\S+%\s+\S+ MB$/, @lines), 'whole lines';
};
subtest '24x8' => sub {
	my @lines = frames(24, 8, sub { has(qr/^all/, @_) }, 'the table');
	ok has(qr/^NAME\s+STATE\s*$/, @lines), 'names and states';
	is has(qr/^\w{8,}\s+RUNNING\s*$/, @lines), 3, 'three programs';
};

subtest 'a program that is stopped' => sub {
	my ($code) = $pod->ctl('stop', 'broadcasterd', 'zz_last');
	is $code, 0, 'stopped';
	my @lines = frames(80, 24, sub { has(qr/^broadcasterd is stopped  1 of 2 daemons answer$/, @_) }, 'is called so');
	ok !has(qr/does not answer/, @lines), 'and nothing else is said of it';
	ok has(qr/^zz_last\s+STOPPED/, @lines), 'it is in the table, where there is no room for all';
};

subtest 'the supervisor goes and comes back' => sub {
	my $state = 0;
	frames(80, 24, sub {
		if ($state == 0) { $pod->process->kill9; $state = 1 }
		elsif ($state == 1 && has(qr/^the supervisor is away: waiting for it/, @_)) { $pod->process->start; $state = 2 }
		elsif ($state == 2) { return has(qr/^exportermerger\s+RUNNING/, @_) && has(qr/^requests/, @_) }
		return 0;
	}, 'top goes on');
	is $state, 2, 'after it had said so';
};

is $pod->stop, 0;
done_testing;
