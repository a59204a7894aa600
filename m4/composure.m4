# Macros of configure.ac.

# COMPOSURE_CFLAGS(VARIABLE, FLAGS): those of FLAGS that compile and link without a warning go into VARIABLE.
AC_DEFUN([COMPOSURE_CFLAGS], [COMPOSURE_PROBE([$1], [$2], [CFLAGS])])
AC_DEFUN([COMPOSURE_CPPFLAGS], [COMPOSURE_PROBE([$1], [$2], [CPPFLAGS])])
AC_DEFUN([COMPOSURE_LDFLAGS], [COMPOSURE_PROBE([$1], [$2], [LDFLAGS])])

AC_DEFUN([COMPOSURE_PROBE], [
	AC_MSG_CHECKING([which $3 of $1 work])
	$1=
	for flag in $2; do
		saved_CFLAGS=$CFLAGS saved_CPPFLAGS=$CPPFLAGS saved_LDFLAGS=$LDFLAGS
		CFLAGS="$CFLAGS -Werror"
		$3="$[]$3 $flag"
		AC_LINK_IFELSE([AC_LANG_SOURCE([[
			#include <string.h>
			int main(int argc, char **argv) { (void)argv; return argc > 1000; }
		]])], [$1="$[]$1 $flag"])
		CFLAGS=$saved_CFLAGS CPPFLAGS=$saved_CPPFLAGS LDFLAGS=$saved_LDFLAGS
	done
	$1=$(echo $[]$1)
	AC_SUBST([$1])
	AC_MSG_RESULT([$[]$1])
])

# COMPOSURE_LIBRARY(PREFIX, MODULE, WHAT, DEBIAN-PACKAGE): by pkg-config, or one line that says what to install.
AC_DEFUN([COMPOSURE_LIBRARY], [
	PKG_CHECK_MODULES([$1], [$2], [], [AC_MSG_ERROR([$3 is missing: apt-get install $4])])
])

# COMPOSURE_LIBFCGI: sets FCGI_CFLAGS, FCGI_LIBS and fcgi_version. Debian 12's has no .pc file. Versions with
# CVE-2025-23016 are refused where pkg-config or dpkg can tell.
AC_DEFUN([COMPOSURE_LIBFCGI], [
	PKG_CHECK_MODULES([FCGI], [fcgi], [fcgi_version=$($PKG_CONFIG --modversion fcgi)], [
		fcgi_version=unknown
		FCGI_CFLAGS= FCGI_LIBS=-lfcgi
		AC_CHECK_HEADERS([fcgiapp.h fastcgi.h], [],
			[AC_MSG_ERROR([libfcgi is missing: apt-get install libfcgi-dev])])
		AC_CHECK_LIB([fcgi], [FCGX_OpenSocket], [:],
			[AC_MSG_ERROR([libfcgi is missing: apt-get install libfcgi-dev])])
	])
	AC_SUBST([FCGI_CFLAGS])
	AC_SUBST([FCGI_LIBS])

	AC_MSG_CHECKING([that libfcgi is without CVE-2025-23016])
	debian_version=$(dpkg-query -W -f '${Version}' libfcgi-dev 2>/dev/null)
	AS_IF([test -n "$debian_version"], [
		fcgi_version=$debian_version
		AS_IF([dpkg --compare-versions "$debian_version" ge 2.4.2-2+deb12u1], [AC_MSG_RESULT([yes, $fcgi_version])],
			[AC_MSG_RESULT([no, $fcgi_version])
			AC_MSG_ERROR([libfcgi $fcgi_version has CVE-2025-23016: apt-get install libfcgi-dev (2.4.2-2+deb12u1 or newer)])])
	], [test "$fcgi_version" != unknown], [
		AS_IF([$PKG_CONFIG --atleast-version=2.4.5 fcgi], [AC_MSG_RESULT([yes, $fcgi_version])],
			[AC_MSG_RESULT([no, $fcgi_version])
			AC_MSG_ERROR([libfcgi $fcgi_version has CVE-2025-23016: install 2.4.5 or newer])])
	], [
		AC_MSG_RESULT([unknown])
		AC_MSG_WARN([cannot tell the version of libfcgi: see to it that it is 2.4.5 or newer, or has the fix of CVE-2025-23016])
	])
])
