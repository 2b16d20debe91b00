#!/usr/bin/env perl

# Configurations with mistakes: every one is told with its file, its line and a sentence, all of them at
# once, and nothing is started.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use Pod;

my $dir = test_path('mistakes');
mkdir $dir or die;
my $n = 0;

# Exit code and what it says; a program in the same file would leave a mark.
sub try_config
{
	my ($conf, @args) = @_;
	my $path = "$dir/" . $n++ . '.conf';
	spew($path, "[program:good]\ncommand=touch $dir/started\nstartsecs=0\n$conf");
	my $text = `RUN_DIR=$dir @{[ eg_bin('supervisor') ]} --config=$path @args 2>&1`;
	return ($? >> 8, $text, $path);
}

# What is wrong, the line it stands in (the first line here is line 4 of the file), what is said.
my @mistakes = (
	[ 'a line that means nothing', "[program:a]\ncommand=x\nnonsense\n", 6, qr/expected \[section\], key = value or ; comment, not "nonsense"/ ],
	[ 'a header that does not end', "[program:a\ncommand=x\n", 4, qr/a section header is written \[name\]/ ],
	[ 'a section without a name', "[]\n", 4, qr/a section without a name/ ],
	[ 'no command', "[program:a]\ndirectory=/\n", 4, qr/\[program:a\] has no command/ ],
	[ 'an open quote', "[program:a]\ncommand=sh -c 'true\n", 5, qr/command: a ' is not closed/ ],
	[ 'an expansion that is not known', "[program:a]\ncommand=%(nobody)s\n", 5, qr/command: %\(nobody\)s is not a known expansion/ ],
	[ 'a variable that is not set', "[program:a]\ncommand=%(ENV_NOT_SET_AT_ALL)s\n", 5, qr/command: .*the environment has no NOT_SET_AT_ALL/ ],
	[ 'a lonely %', "[program:a]\ncommand=date +%Y\n", 5, qr/command: a % must be %\(name\)s or %%/ ],
	[ 'a truth that is none', "[program:a]\ncommand=x\nautostart=maybe\n", 6, qr/autostart: "maybe" is not true or false/ ],
	[ 'a policy that is none', "[program:a]\ncommand=x\nautorestart=often\n", 6, qr/autorestart: "often" is not true, false or unexpected/ ],
	[ 'a number that is none', "[program:a]\ncommand=x\nstartretries=three\n", 6, qr/startretries: "three" is not a whole number from 0 to/ ],
	[ 'a number out of range', "[program:a]\ncommand=x\nexitcodes=256\n", 6, qr/exitcodes: "256" is not a list of exit codes/ ],
	[ 'a time that is none', "[program:a]\ncommand=x\nstopwaitsecs=-1\n", 6, qr/stopwaitsecs: "-1" is not a number of seconds/ ],
	[ 'a size that is none', "[program:a]\ncommand=x\nstdout_logfile_maxbytes=1XB\n", 6, qr/stdout_logfile_maxbytes: "1XB" is not a number of bytes/ ],
	[ 'a signal that is none', "[program:a]\ncommand=x\nstopsignal=SIGNOPE\n", 6, qr/stopsignal: "SIGNOPE" is not a signal/ ],
	[ 'a umask that is none', "[program:a]\ncommand=x\numask=089\n", 6, qr/umask: "089" is not an octal number/ ],
	[ 'a user who is not there', "[program:a]\ncommand=x\nuser=nobody_of_that_name\n", 6, qr/user: there is no user "nobody_of_that_name"/ ],
	[ 'an environment that is none', "[program:a]\ncommand=x\nenvironment=A\n", 6, qr/environment: expected = after a key/ ],
	[ 'many processes of one name', "[program:a]\ncommand=x\nnumprocs=2\nprocess_name=same\n", 7, qr/two processes are called a:same/ ],
	[ 'too many processes', "[program:a]\ncommand=x\nnumprocs=100000\n", 6, qr/numprocs: "100000" is not a whole number from 0 to 1024/ ],
	[ 'a name with a colon', "[program:a:b]\ncommand=x\n", 4, qr/\[program:a:b\]: the name is empty, too long or has/ ],
	[ 'a group of nobody', "[group:g]\nprograms=good,ghost\n", 5, qr/programs: there is no \[program:ghost\]/ ],
	[ 'a group without programs', "[group:g]\npriority=1\n", 4, qr/\[group:g\] has no programs/ ],
	[ 'a program in two groups', "[group:g]\nprograms=good\n[group:h]\nprograms=good\n", 7, qr/programs: good is in \[group:g\] already/ ],
	[ 'a dependency on nobody', "[program:a]\ncommand=x\ndepends_on=ghost\n", 4, qr/\[program:a\] depends_on: there is no program, group or process "ghost"/ ],
	[ 'a circle of dependencies', "[program:a]\ncommand=x\ndepends_on=b\n[program:b]\ncommand=x\ndepends_on=a\n", 4, qr/depends_on goes in a circle: a, b, a/ ],
	[ 'a dependency on itself', "[program:a]\ncommand=x\ndepends_on=a\n", 4, qr/\[program:a\] depends_on: a would wait for itself/ ],
	[ 'a supervisor that should be somebody else', "[supervisord]\nuser=65533\n", 5, qr/user: the supervisor does not become "65533"/ ],
	[ 'one address for two', "[program:a]\ncommand=x\nsockets=s=127.0.0.1:1\n[program:b]\ncommand=x\nsockets=s=127.0.0.1:1\n", 7,
		qr/sockets: 127\.0\.0\.1:1 is an address of a already/ ],
	[ 'a port that is none', "[program:a]\ncommand=x\nsockets=s=127.0.0.1:65536\n", 6, qr/sockets: "127\.0\.0\.1:65536" is not host:port/ ],
	[ 'readiness at a port that is none', "[program:a]\ncommand=x\nready=tcp:65536\n", 6, qr/ready: "tcp:65536" is not none/ ],
	[ 'a log where nothing is', "[program:a]\ncommand=x\nstdout_logfile=/nonexistent/x.log\n", 4,
		qr/\[program:a\] stdout_logfile: there is no directory \/nonexistent/ ],
	[ 'a readiness that is none', "[program:a]\ncommand=x\nready=soon\n", 6, qr/ready: "soon" is not none, notify, rpc/ ],
	[ 'rpc readiness without a socket', "[program:a]\ncommand=x\nready=rpc\n", 4, qr/\[program:a\] ready=rpc needs a socket named rpc/ ],
	[ 'a socket without an address', "[program:a]\ncommand=x\nsockets=http\n", 6, qr/sockets: "http" is not NAME=ADDRESS/ ],
	[ 'an address that is none', "[program:a]\ncommand=x\nsockets=http=8080\n", 6, qr/sockets: "8080" is not host:port and not a path/ ],
	[ 'a limit of nothing known', "[program:a]\ncommand=x\nlimits=speed=1\n", 6, qr/limits: "speed=1" does not begin with as=/ ],
	[ 'a limit that is no number', "[program:a]\ncommand=x\nlimits=nofile=many\n", 6, qr/limits: "nofile=many" is not NAME=SOFT/ ],
	[ 'a soft limit above the hard one', "[program:a]\ncommand=x\nlimits=nofile=20:10\n", 6, qr/limits: "nofile=20:10": the soft limit is above/ ],
	[ 'a secret without a file', "[program:a]\ncommand=x\nsecrets=TOKEN\n", 6, qr/secrets: expected = after a key/ ],
	[ 'an event listener', "[eventlistener:e]\ncommand=x\n", 4, qr/\[eventlistener:e\] is not supported: this supervisor has no event listeners/ ],
	[ 'a FastCGI program', "[fcgi-program:f]\ncommand=x\n", 4, qr/\[fcgi-program:f\] is not supported/ ],
	[ 'a NUL byte', "[program:a]\ncommand=x\0y\n", 5, qr/a NUL byte: this is not a text file/ ],
	[ 'an include of nothing', "[include]\nfiles=\n", 5, qr/files: names no file/ ],
);

subtest scalar(@mistakes) . ' kinds of mistake' => sub {
	for my $m (@mistakes) {
		my ($what, $conf, $line, $re) = @$m;
		my ($code, $text, $path) = try_config($conf);
		my $ok = $code == 78 && $text =~ /^\Q$path\E:$line: error: $re/m;
		ok $ok, $what or diag "exit code $code:\n$text";
	}
};
ok !-e "$dir/started", 'nothing was started by any of them';

subtest 'all mistakes at once' => sub {
	my ($code, $text) = try_config("[program:a]\ncommand=x\nstopsignal=A\nstartsecs=B\n[program:b]\ncommand=%(c)s\n[group:g]\nprograms=d\n");
	my @errors = $text =~ /: error: (\w+):/g;
	is "@errors", 'stopsignal startsecs command programs', 'in the order of the file';
	is $code, 78, 'exit code';
};

subtest 'a command that cannot be read is not missing as well' => sub {
	my ($code, $text) = try_config("[program:a]\ncommand=%(ENV_NOT_THERE)s\n");
	is scalar(() = $text =~ /: error: /g), 1, 'one mistake, one error' or diag $text;
	($code, $text) = try_config("[program:a]\ncommand=\n");
	like $text, qr/has no command/, 'an empty one is';
};

subtest 'mistakes in an included file are told with its name' => sub {
	spew("$dir/part.ini", "[program:p]\ncommand=x\nstopsignal=A\n");
	my ($code, $text) = try_config("[include]\nfiles=part.ini\n");
	like $text, qr/^\Q$dir\E\/part\.ini:3: error: stopsignal:/m, 'file and line';
	is $code, 78, 'exit code';
};

subtest 'what a hostile file says does not reach the terminal' => sub {
	my ($code, $text) = try_config("\033[2J\007\n[program:a]\ncommand=x\nstopsignal=\033]0;title\007\n");
	is $code, 78, 'exit code';
	unlike $text, qr/[\000-\011\013-\037]/, 'no control characters';
};

subtest 'what has no effect is a warning' => sub {
	my ($code, $text, $path) = try_config("[program:a]\ncommand=true\nfancy=1\nserverurl=AUTO\n[unix_http_server]\nfile=/tmp/s\n[supervisorctl]\n[rpcinterface:x]\n[wizard]\n",
		'--check-config');
	is $code, 0, 'exit code' or diag $text;
	like $text, qr/^\Q$path\E:6: warning: fancy: not a known key/m, 'an unknown key is named';
	like $text, qr/^\Q$path\E:7: warning: serverurl: podctl finds/m, 'a key without effect says why';
	like $text, qr/^\Q$path\E:8: warning: \[unix_http_server\] has no effect/m, 'a section too';
	like $text, qr/^\Q$path\E:12: warning: \[wizard\] is not a known section/m, 'and an unknown one';
};

subtest 'files that are none' => sub {
	for my $case ([ "$dir/absent.conf", qr/cannot be read: No such file/ ], [ $dir, qr/is not a file/ ]) {
		my $text = `RUN_DIR=$dir @{[ eg_bin('supervisor') ]} --config=$case->[0] 2>&1`;
		is $? >> 8, 78, 'exit code';
		like $text, $case->[1], 'says why';
	}
	spew("$dir/big.conf", "; x\n" x 300_000);
	like `RUN_DIR=$dir @{[ eg_bin('supervisor') ]} --config=$dir/big.conf 2>&1`, qr/a file of more than 1048576 bytes/, 'too big';
};

done_testing;
